"""Looking names up in a table, with an error that helps when the name is not there."""

import difflib


def look_up(table, name, what):
    """Returns `table[name]`, or raises an error that lists the known names.

    Args:
      table: mapping from name to value.
      name: str, the name asked for.
      what: str, what the names stand for, for the error message.

    Raises:
      ValueError: if `name` is not in `table`; the message suggests the nearest name.
    """
    if isinstance(name, str) and name in table:
        return table[name]
    near = difflib.get_close_matches(str(name), table, n=1)
    suggestion = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"Unknown {what}: received {name!r}.{suggestion} Known: {', '.join(table)}.")
