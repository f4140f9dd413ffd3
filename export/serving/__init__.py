"""A local server and a client that speak TF Serving's REST and gRPC interfaces, for any SavedModel.

`server.Server` answers on a machine without TF Serving's binary; `client.Client` asks it, or the real TF Serving.
Neither needs the library that built the model.
"""
