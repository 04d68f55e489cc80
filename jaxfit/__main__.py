"""python -m jaxfit: the commands, and what a bug report needs."""

import argparse
import importlib.metadata
import platform
import sys
from collections.abc import Sequence

COMMANDS = {  # by the word after `python -m jaxfit`: what it does
    "version": "print the versions and devices that a bug report needs",
    "experiments": "run the checked figures of a folder: python -m jaxfit experiments FOLDER [NAME ...]",
    "explore": "write the page of a store, to look at in a browser: python -m jaxfit explore STORE [FILE]",
    "worker": "run a share of a sweep: python -m jaxfit worker MODULE:PROBLEM STORE --shard I/N",
}
PACKAGES = ("jaxfit-toolkit", "jax", "jaxlib", "optax", "numpy", "scipy", "xarray", "matplotlib")


def version() -> str:
    """Return a line for each of Python, the packages, the platform and the devices of JAX."""
    import jax

    def installed(name: str) -> str:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return "not installed"

    rows = {"python": platform.python_version()} | {name: installed(name) for name in PACKAGES}
    rows["platform"] = f"{platform.system()} {platform.machine()}"
    rows["devices"] = ", ".join(f"{device.platform}:{device.id} {device.device_kind}" for device in jax.devices())
    rows["64-bit"] = "jax_enable_x64 is on" if jax.config.jax_enable_x64 else "jax_enable_x64 is off"
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m jaxfit",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="commands:\n" + "\n".join(f"  {name:<12} {what}" for name, what in COMMANDS.items()),
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of those below")
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="its arguments; --help shows them")
    if not words:
        parser.print_help()
        return 0
    given = parser.parse_args(words)
    if given.command == "version":
        if given.rest:
            parser.error(f"version takes no arguments, but got {' '.join(given.rest)}")
        print(version())
        return 0
    if given.command == "worker":
        from jaxfit import worker

        return worker.main(given.rest)
    if given.command == "explore":
        from jaxfit import pages

        return pages.main(given.rest)
    from jaxfit import experiments

    return experiments.main(given.rest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
