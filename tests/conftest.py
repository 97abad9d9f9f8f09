"""PyTorch on one thread, as the program itself runs it: small matrices only get slower on more, most of all on busy machines.

``--all-inputs`` runs the generated bad inputs that are left out otherwise: more of a kind, or slow. ``--fuzz-seconds`` tries
random damage of all files that are read for so long (tests/test_fuzzing.py).
"""

import signal

import pytest
import torch

torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all-inputs", action="store_true", help="every generated bad input, the slow ones too")
    parser.addoption("--fuzz-seconds", type=float, default=0.0, help="how long random damage is tried, all readers together (default: a few files of each)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--all-inputs"):
        return
    for item in items:
        mark = item.get_closest_marker("all_inputs")
        if mark is not None:
            item.add_marker(pytest.mark.skip(reason=f"with --all-inputs only: {mark.kwargs['reason']}"))


def pytest_configure() -> None:
    """Programs that tests start are to be stopped by signals, though a shell that runs tests in the background ignores some."""
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (getattr(signal, "SIGHUP", None), signal.SIG_DFL)):
        if number is not None and signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, usual)
