"""What all figures share: a file, a title, text and images."""

import pathlib
import textwrap

from iwae_zoo._files import whole

__all__ = ["as_image", "plain", "short", "titled", "write"]

# Letters of a title in an inch, and the height of its lines, inches.
_LETTERS, _LINE = 9, 0.2
# Most letters beside an axis.
_SHORT = 24


def write(figure, path):
    """Writes a figure, whole or not at all: as its ending says, and as PNG where it has none."""
    with whole(path) as partial:
        figure.savefig(partial, dpi=120, format=pathlib.Path(path).suffix[1:] or "png")


def titled(figure, title):
    """Writes a title over a figure, in as many lines as it needs: names of runs can be long."""
    lines = textwrap.wrap(plain(title), int(_LETTERS * figure.get_figwidth()))
    figure.set_figheight(figure.get_figheight() + _LINE * (len(lines) - 1))
    figure.suptitle("\n".join(lines))


def plain(text):
    """Text that users chose, in which a dollar is a dollar and begins no formula."""
    return text.replace("$", r"\$")


def short(text):
    """The same of a name beside an axis, cut where it would be too long."""
    return plain(text if len(text) <= _SHORT else text[: _SHORT - 1] + "\u2026")


def as_image(x):
    """Grey [H, W], or [H, W, 3] in colours: other channels than three have no colours, and their mean is shown."""
    if x.ndim == 3 and x.shape[-1] != 3:
        return x.mean(axis=-1)
    return x if x.ndim in (2, 3) else x.reshape(len(x) if x.ndim > 2 else 1, -1)
