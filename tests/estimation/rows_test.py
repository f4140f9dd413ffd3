"""What all questions share that are answered row by row."""

from iwae_zoo.estimation import importance


def test_rows_do_not_wait_for_each_other(linear_gaussian):
    """To TensorFlow, a loop that reads variables has a side effect, and such loops go one after the other."""
    answer = importance._rows_function(linear_gaussian.model("iwae"), 10, 3, "encoder")
    graph = answer.get_concrete_function().graph.as_graph_def()
    inner = [node.op for function in graph.library.function for node in function.node_def]
    assert "StatelessWhile" in inner and not {"While", "ReadVariableOp"} & set(inner)
    (rows,) = (node for node in graph.node if "While" in node.op)
    assert rows.op == "StatelessWhile" and rows.attr["parallel_iterations"].i == 2
