"""What there is, for people: the presets in words."""

from iwae_zoo.presets import table
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
    count = build(name, data_shape=preset.data_shape).count_params()
    layers = preset.layers
    parts = [
        f"{preset.kind} data {'x'.join(map(str, preset.data_shape))}",
        f"{preset.network} {'+'.join(','.join(map(str, hidden)) or 'linear' for _, hidden in layers)}",
        f"latent {','.join(str(size) for size, _ in layers)}",
    ]
    for field in ("likelihood", "posterior", "prior", "objective"):
        if getattr(preset, field) != getattr(table.Preset, field):
            parts.append(f"{field} {getattr(preset, field)}")
    lines = [f"{name}: {preset.summary}", f"{'; '.join(parts)}; {count:,} weights"]
    lines += [preset.paper] if preset.paper else []
    return "\n    ".join([*lines, f"reached: {preset.reached or 'not measured'}"])
