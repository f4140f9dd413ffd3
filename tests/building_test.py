"""The tests' way to make operations, against TensorFlow's own."""

import re

import contract_test
import pytest
import tensorflow as tf
from replicated import mirrored
from tensorflow.python.framework import op_def_library
from tensorflow.python.framework.func_graph import FuncGraph
from toy_data import dataset

from iwae_zoo import presets
from iwae_zoo.estimation import walks
from iwae_zoo.saved_model.signatures import Settings, signatures_of

TILE_ROWS = 48


@pytest.fixture
def as_users_do(monkeypatch):
    """A function after which operations are made as users' are."""
    made, created = op_def_library._apply_op_helper, FuncGraph._create_op_internal
    if not hasattr(made, "__wrapped__"):
        pytest.skip("All of these tests make operations as users do.")

    def change():
        monkeypatch.setattr(op_def_library, "_apply_op_helper", made.__wrapped__)
        monkeypatch.setattr(FuncGraph, "_create_op_internal", created.__wrapped__)

    return change


@pytest.mark.slow
def test_answers_have_the_same_graphs(as_users_do):
    """Of a model of tables: with loops, conditions, checks, derivatives and devices in them."""
    model = contract_test.built(next(row for row in contract_test.ROWS if row.likelihood == "columns"))
    settings = Settings.of(model, 20, 40, 0, walks.Budget.of("laplace", 3, 8, 1), TILE_ROWS, None)

    def graphs():
        signatures = signatures_of(model, settings)
        return {name: canonical(signatures[name].get_concrete_function()) for name in ("log_prob", "impute", "sample")}

    here = graphs()
    as_users_do()
    assert graphs() == here


def test_a_training_step_of_two_replicas_has_the_same_graph(as_users_do):
    strategy, data = mirrored(2), dataset("bernoulli", (3, 3, 1))
    with strategy.scope():
        model = presets.build("plane", data=data, latent_size=2, hidden_sizes=(4,), seed=0)
        model.compile("sgd")
    model.train_on_batch(data.test[:4])  # Variables are made.

    def graph():
        step = tf.function(lambda x: strategy.run(model.train_step, args=((x,),)), autograph=False)
        return canonical(step.get_concrete_function(tf.TensorSpec([4, 3, 3, 1])))

    here = graph()
    as_users_do()
    assert graph() == here


def test_a_call_knows_what_its_inputs_tell(as_users_do):
    """More than its function, which was made for any number of rows."""

    @tf.function(input_signature=[tf.TensorSpec([None, 2])], autograph=False)
    def doubled(x):
        return 2.0 * x

    def shape():
        function = tf.function(lambda x: 1.0 * doubled(x), autograph=False)
        return function.get_concrete_function(tf.TensorSpec([3, 2])).outputs[0].shape

    here = shape()
    as_users_do()
    assert shape() == here == (3, 2)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: tf.raw_ops.AddV2(x=x, y=tf.ones([2], tf.int32)),
        lambda x: tf.raw_ops.AddV2(x=tf.strings.as_string(x), y=x),
        lambda x: tf.raw_ops.MatMul(a=x, b=tf.ones([3, 2])),
        lambda x: tf.raw_ops.BitwiseAnd(x=x, y=x),
        lambda x: tf.raw_ops.ConcatV2(values=[x, 1], axis="first"),
        lambda x: tf.raw_ops.Sum(input=x, axis=[0.5]),
        lambda x: tf.raw_ops.Cast(x=x, DstT="no type"),
        lambda x: tf.raw_ops.Pad(input=x),
        lambda x: tf.raw_ops.ConcatV2(values=[], axis=0),
        lambda x: tf.raw_ops.Pack(values=[x, tf.ones([3])]),
    ],
)
def test_errors_are_the_same(wrong, as_users_do):
    def error():
        with pytest.raises((TypeError, ValueError)) as raised:
            tf.function(wrong, autograph=False).get_concrete_function(tf.TensorSpec([2]))
        return raised.type, str(raised.value)

    here = error()
    as_users_do()
    assert error() == here


def canonical(function):
    """A graph and the functions that it calls, without the numbers that a process gives to names."""
    definition = function.graph.as_graph_def()
    functions = definition.library.function
    return [
        _nodes([], definition.node, {}),
        *sorted(_nodes([i.name for i in f.signature.input_arg], f.node_def, f.ret) for f in functions),
    ]


def _nodes(arguments, nodes, returned):
    """Nodes as text, each by its place among the others."""
    names = [*arguments, *(node.name for node in nodes)]
    places = {name: str(place) for place, name in enumerate(names)}

    def reference(to):
        control, name, output = re.fullmatch(r"(\^?)([^:]+)(.*)", to).groups()
        return control + places[name] + output

    def attribute(value):
        named = value.WhichOneof("value") in ("func", "s")
        return _unnumbered(str(value)) if named else value.SerializeToString(deterministic=True)

    return repr(
        (
            [
                (
                    _unnumbered(node.name),
                    node.op,
                    node.device,
                    [reference(i) for i in node.input],
                    [(name, attribute(value)) for name, value in sorted(node.attr.items())],
                )
                for node in nodes
            ],
            [(_unnumbered(name), reference(to)) for name, to in sorted(returned.items())],
        )
    )


def _unnumbered(name):
    return re.sub(r"\d+", "#", name)
