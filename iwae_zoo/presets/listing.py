"""What there is, for people: the presets in words."""

from iwae_zoo.presets import table, trained
from iwae_zoo.presets.build import build

__all__ = ["describe"]


def describe(name):
    """A preset in a few lines.

    Args:
      name: one of `names()`.

    Returns:
      str.

    Raises:
      ValueError: on an unknown name.

    #### Examples
    >>> print(describe("plane"))
    plane: 8x8 digits, with a latent that can be drawn
        binary data 8x8x1; perceptron 64,64; latent 2; 17,092 weights
        reached: digits, --objective=dreg --m=1: log p(x) -23.02 (0.22)
    """
    preset = table.get(name)
    layers = preset.layers
    parts = [
        f"{preset.kind} data {'x'.join(map(str, preset.data_shape))}",
        f"{preset.network} {'+'.join(','.join(map(str, hidden)) or 'linear' for _, hidden in layers)}",
        f"latent {','.join(str(size) for size, _ in layers)}",
    ]
    for field in ("likelihood", "posterior", "prior", "objective", "m", "k"):
        if getattr(preset, field) != getattr(table.Preset, field):
            parts.append(f"{field} {getattr(preset, field)}")
    if preset.training is not None and trained.is_made(name):
        parts.append(f"{trained.card(name)['weights']['count']:,} weights")
    elif preset.kind != "table":  # Where it depends on the columns.
        parts.append(f"{build(name, data_shape=preset.data_shape).count_params():,} weights")
    lines = [f"{name}: {preset.summary}", "; ".join(parts)]
    lines += [preset.paper] if preset.paper else []
    reached = f"reached: {preset.reached or 'not measured'}" if preset.training is None else _weights(name)
    return "\n    ".join([*lines, reached])


def _weights(name):
    """The card of a preset with weights in a line."""
    if not trained.is_made(name):
        return f"weights: not trained yet; python studies/train_presets_main.py --preset={name}"
    card = trained.card(name)
    config, scores = card["config"], card["evaluation"]
    how = f"{config['objective']} --m={config['m']} --k={config['k']} on {config['dataset']}"
    return (
        f"weights: {how}, {card['epochs']} epochs, {card['hours']:.2f} hours: log p(x) {scores['log_prob']:.2f} "
        f"({scores['log_prob_error']:.2f}) on {scores['num_examples']:,} test examples"
    )
