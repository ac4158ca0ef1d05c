"""What the shell offers while a word is typed: `sheafnet --install-completion` tells it to ask.

Where nothing here begins with that word, the shell offers files.
"""

from typing import get_args

from sheafnet.config import MethodName
from sheafnet.shipped import shipped
from sheafnet.studies.keys import known_keys


def topologies(incomplete: str) -> list[str]:
    """The shipped ones."""
    return [name for name in shipped() if name.startswith(incomplete)]


def methods(incomplete: str) -> list[str]:
    """All of them."""
    return [name for name in get_args(MethodName) if name.startswith(incomplete)]


def keys(incomplete: str) -> list[str]:
    """Those of a configuration, up to the value."""
    return [f"{key}=" for key in known_keys() if key.startswith(incomplete)]
