"""A local server and a client that speak TF Serving's REST and gRPC interfaces, for any SavedModel.

`server.serve` answers on a machine without TF Serving's binary; `client.RestClient` and `client.GrpcClient` ask it, or
the real TF Serving. Neither imports the library that built the model: this is a package of its own, because `iwae_zoo`
imports Keras and TensorFlow Probability whichever part of it is asked for.
"""
