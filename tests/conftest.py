"""PyTorch on one thread, as the program itself runs it: small matrices only get slower on more, most of all on busy machines.

``--all-inputs`` runs the generated bad inputs that are left out otherwise: more of a kind, or slow.
"""

import pytest
import torch

torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all-inputs", action="store_true", help="every generated bad input, the slow ones too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--all-inputs"):
        return
    for item in items:
        mark = item.get_closest_marker("all_inputs")
        if mark is not None:
            item.add_marker(pytest.mark.skip(reason=f"with --all-inputs only: {mark.kwargs['reason']}"))
