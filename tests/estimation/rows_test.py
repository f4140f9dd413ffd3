"""What all questions share that are answered row by row."""

import pytest
import tensorflow as tf
from replicated import mirrored

from iwae_zoo.estimation import importance, rows


def test_rows_do_not_wait_for_each_other(linear_gaussian):
    """To TensorFlow, a loop that reads variables has a side effect, and such loops go one after the other."""
    answer = importance._rows_function(linear_gaussian.model("iwae"), 10, 3, "encoder")
    graph = answer.get_concrete_function().graph.as_graph_def()
    inner = [node.op for function in graph.library.function for node in function.node_def]
    assert "StatelessWhile" in inner and not {"While", "ReadVariableOp"} & set(inner)
    (loop,) = (node for node in graph.node if "While" in node.op)
    assert loop.op == "StatelessWhile" and loop.attr["parallel_iterations"].i == 2


def test_an_error_while_it_is_traced_leaves_nothing_behind(linear_gaussian):
    """No variable scope of the loop's, in which no strategy's could be entered."""

    def fails(seed, x):
        raise KeyError("nothing")

    function = rows.by_rows(linear_gaussian.model(), fails, [tf.TensorSpec([3])], [], {"y": tf.TensorSpec([])})
    with pytest.raises(KeyError):
        function([0], 0, [[0.0, 0.0, 0.0]])
    with mirrored(2).scope():
        pass
