"""verl's own advantage estimators out of its wheel, as oracles; nothing of them is copied here.

Only the modules that hold them are loaded. What the rest of verl needs (Ray, tensordict, …) is not installed: where
these modules import it, for annotations, an empty class stands in.
"""

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

PACKAGES = ("verl", "verl.utils", "verl.trainer", "verl.trainer.ppo", "verl.workers")
"""Loaded as bare folders: their `__init__` files import everything else."""
STAND_INS = {
    "omegaconf": ("DictConfig",),
    "tensordict": ("TensorDict",),
    "transformers": ("PreTrainedTokenizer",),
    "verl.trainer.config": ("AlgoConfig",),
    "verl.workers.config": ("ActorConfig",),
}


def load() -> ModuleType:
    """`verl.trainer.ppo.core_algos`, with `masked_whiten` and the rest of `verl.utils.torch_functional` as `verl_F`."""
    spec = importlib.util.find_spec("verl")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    with _only_while_loading():
        for name in PACKAGES:
            package: Any = ModuleType(name)
            package.__path__ = [f"{spec.submodule_search_locations[0]}/{'/'.join(name.split('.')[1:])}"]
            sys.modules[name] = package
        for name, classes in STAND_INS.items():
            module = sys.modules[name] = ModuleType(name)
            for one in classes:
                setattr(module, one, type(one, (), {}))
        utils: Any = sys.modules["verl.utils"]
        groupwise = importlib.import_module("verl.utils.groupwise")
        utils.as_torch_index, utils.group_mean_std = groupwise.as_torch_index, groupwise.group_mean_std
        return importlib.import_module("verl.trainer.ppo.core_algos")


@contextmanager
def _only_while_loading() -> Iterator[None]:
    """Whoever imports the same names later gets what they really are."""
    before = {name: sys.modules.pop(name) for name in STAND_INS if name in sys.modules}
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name in STAND_INS or name.split(".")[0] == "verl"]:
            del sys.modules[name]
        sys.modules.update(before)
