"""Tables: columns of different kinds, each with its own likelihood, in its own units."""

import dataclasses
import functools
import math
import types
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability import distributions as tfd

from iwae_zoo._rows import Rows
from iwae_zoo._shapes import shape_of
from iwae_zoo.columns import Column, used
from iwae_zoo.distributions.head import Likelihood

__all__ = ["Columns", "Group", "JoinedColumns"]


@dataclasses.dataclass(frozen=True)
class Group:
    """Columns that one head reads.

    Attributes:
      head: `Likelihood`, fitted to them.
      places: ints, their places in x.
    """

    head: Likelihood
    places: tuple[int, ...]

    @property
    def parameter_shape(self):
        return self.head.parameter_shape((len(self.places),))

    @property
    def shared_shape(self):
        return self.head.shared_shape((len(self.places),))


@dataclasses.dataclass(frozen=True)
class Columns(Likelihood):
    """Columns that are independent given z, each with the likelihood of its kind.

    log p(x | z) is a density by the real and the positive columns, in their units, and a probability of the others.

    Args:
      real: name of the likelihood of real columns, with settings where it has some, as in "student_t:spread=value".
      positive: the same, of columns of positive numbers.
      count: of counts.
      binary: of zeros and ones, and of two names.
      categorical: of names.
      columns: sequence of `Column`, of the table; those that are ignored are no values of x.
      groups: sequence of `Group`; `fitted` makes them.
    """

    real: str = "normal:spread=column"
    positive: str = "log_normal:spread=column"
    count: str = "negative_binomial"
    binary: str = "bernoulli"
    categorical: str = "categorical"
    columns: tuple[Column, ...] = ()
    groups: tuple[Group, ...] = ()

    name = "columns"
    title = "table's column"
    kinds = ("table",)
    values = "what each column takes"
    # By setting: the kind of data that its likelihood is for.
    of_kind = types.MappingProxyType(
        {"real": "real", "positive": "positive", "count": "count", "binary": "binary", "categorical": "class"}
    )

    def __post_init__(self):
        from iwae_zoo.distributions import likelihoods  # Its table has this class.

        def group(of):
            return of if isinstance(of, Group) else Group(likelihoods.from_config(of["head"]), tuple(of["places"]))

        def column(of):
            return of if isinstance(of, Column) else Column(**of)

        object.__setattr__(self, "columns", tuple(map(column, self.columns)))
        object.__setattr__(self, "groups", tuple(map(group, self.groups)))
        for setting, kind in self.of_kind.items():
            likelihoods.checked(self._head(setting), kind)

    @property
    def not_drawn(self):
        heads = [group.head for group in self.groups]
        return next((f"of {head.name!r} {head.not_drawn}" for head in heads if head.not_drawn), None)

    def _head(self, kind):
        from iwae_zoo.distributions import likelihoods

        return likelihoods.get(getattr(self, kind).replace(":", ","))

    @property
    def parameters_per_value(self):
        raise TypeError("The columns of a table have different numbers of parameters: use parameter_shape.")

    def parameter_shape(self, data_shape):
        self._check_fitted()
        return (sum(math.prod(group.parameter_shape) for group in self.groups),)

    @property
    def shared_parameters(self):
        return sum(math.prod(group.shared_shape) for group in self.groups)

    def shared_shape(self, data_shape):
        return (self.shared_parameters,)

    def _check_fitted(self):
        if not self.groups:
            raise ValueError(f"The likelihood {self.name!r} knows no table: use fitted(data) of one with columns.")

    def distribution(self, parameters, event_ndims, dtype=None, shared=None):
        del event_ndims  # A row of a table has one axis.
        self._check_fitted()
        return JoinedColumns(self.groups, parameters, dtype, shared)

    def features(self, x):
        self._check_fitted()
        return tf.concat([group.head.features(_of_group(x, group)) for group in self.groups], axis=-1)

    def of_features(self, flags):
        return tf.concat([group.head.of_features(_of_group(flags, group)) for group in self.groups], axis=-1)

    def holds(self, x):
        self._check_fitted()
        of_groups = [group.head.holds(_of_group(x, group)) for group in self.groups]
        return None if any(flags is None for flags in of_groups) else _joined(self.groups, of_groups)

    def fitted(self, data):
        data = Rows.of(data)
        columns = used(self.columns)
        if len(columns) != data.shape[-1]:
            raise ValueError(
                f"A table's likelihood must know its columns: received {len(columns)} for {data.shape[-1]} in the data."
            )
        places: dict[Any, list[int]] = {}
        for place, column in enumerate(columns):
            places.setdefault((column.kind, len(column.categories)), []).append(place)
        groups = []
        for (kind, size), of_kind in places.items():
            head = self._head(kind)
            if kind == "categorical":
                head = dataclasses.replace(head, classes=size)
            of_group = data.map(functools.partial(_at, places=of_kind), data.dtype, [len(of_kind)])
            groups.append(Group(head.fitted(of_group), tuple(of_kind)))
        missing = self.missing or any(group.head.missing for group in groups)
        if missing:  # In any column some day, if in one.
            groups = [Group(dataclasses.replace(group.head, missing=True), group.places) for group in groups]
        start = np.concatenate([np.ravel(group.head.start) for group in groups])
        shared = [np.ravel(g.head.shared_start) for g in groups if g.head.shared_parameters]
        return dataclasses.replace(
            self,
            groups=tuple(groups),
            missing=missing,
            start=start,
            shared_start=np.concatenate(shared) if shared else None,
        )


class JoinedColumns(tfd.Distribution):
    """Groups of columns of x, each with its own distribution, independent of the others.

    Args:
      groups: sequence of `Group`.
      parameters: float tensor [..., P], those of the groups one after the other.
      dtype: of log-likelihoods and draws; that of the parameters by default.
      shared: float tensor [S], the shared parameters of the groups.
    """

    def __init__(self, groups, parameters, dtype=None, shared=None, name="JoinedColumns"):
        arguments = dict(locals())
        parameters = tf.convert_to_tensor(parameters)
        dtype = tf.as_dtype(dtype or parameters.dtype)
        self._groups = groups
        self._batch = parameters.shape[:-1]
        self._known_batch = shape_of(parameters)[:-1]
        of_groups = tf.split(parameters, [math.prod(group.parameter_shape) for group in groups], axis=-1)
        sizes = [math.prod(group.shared_shape) for group in groups]
        if shared is None:
            shared = tf.zeros([sum(sizes)], dtype)
        of_shared = tf.split(shared, sizes)
        self._parts = []
        for group, own, own_shared in zip(groups, of_groups, of_shared, strict=True):
            own = tf.reshape(own, [*self._known_batch, *group.parameter_shape])
            keywords = {"shared": tf.reshape(own_shared, group.shared_shape)} if group.head.shared_parameters else {}
            self._parts.append(group.head.distribution(own, 1, dtype, **keywords))
        super().__init__(
            dtype=dtype,
            reparameterization_type=tfd.NOT_REPARAMETERIZED,
            validate_args=False,
            allow_nan_stats=True,
            parameters=arguments,
            name=name,
        )

    def _batch_shape(self):
        return self._batch

    def _batch_shape_tensor(self, **kwargs):
        del kwargs
        return tf.convert_to_tensor(self._known_batch, tf.int32)

    def _event_shape(self):
        return tf.TensorShape([sum(len(group.places) for group in self._groups)])

    def _event_shape_tensor(self, **kwargs):
        del kwargs
        return tf.constant(self._event_shape().as_list(), tf.int32)

    def _log_prob(self, x):
        return tf.add_n(
            [part.log_prob(_of_group(x, group)) for group, part in zip(self._groups, self._parts, strict=True)]
        )

    def information(self, x):
        """As that of `IndependentValues`, of one group after the other; None where one of them does not know."""
        of_parts = [
            part.information(_of_group(x, group)) for group, part in zip(self._groups, self._parts, strict=True)
        ]
        return None if None in of_parts else [pair for pairs in of_parts for pair in pairs]

    def _mean(self):
        return self._joined([part.mean() for part in self._parts])

    def _stddev(self):
        return self._joined([part.stddev() for part in self._parts])

    def _sample_n(self, n, seed=None):
        seeds = tfp.random.split_seed(seed, n=len(self._parts))
        seeds = tf.unstack(seeds, num=len(self._parts))
        return self._joined([part.sample(n, seed=own) for part, own in zip(self._parts, seeds, strict=True)])

    def class_probabilities(self):
        """Float tensor [..., V, C]: zeros where a column is no class, or has fewer; None if no column is."""
        of_parts = [part.class_probabilities() for part in self._parts]
        most = max((p.shape[-1] for p in of_parts if p is not None), default=0)
        if not most:
            return None
        padded = []
        for group, probabilities in zip(self._groups, of_parts, strict=True):
            if probabilities is None:
                padded.append(tf.zeros([*self._known_batch, len(group.places), most], self.dtype))
            else:
                beyond = [[0, 0]] * (probabilities.shape.rank - 1) + [[0, most - probabilities.shape[-1]]]
                padded.append(tf.pad(probabilities, beyond))
        return self._joined(padded, axis=-2)

    def _joined(self, of_parts, axis=-1):
        return _joined(self._groups, of_parts, axis)


def _at(rows, places):
    return rows[:, places]


def _joined(groups, of_parts, axis=-1):
    """What is said of the columns group by group, in the order of x."""
    order = np.argsort([place for group in groups for place in group.places])
    return tf.gather(tf.concat(of_parts, axis=axis), order, axis=axis)


def _of_group(x, group):
    return tf.gather(x, group.places, axis=-1)
