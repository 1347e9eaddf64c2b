"""Run as a program: one of several processes that search together."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from test_search import _search, _url, made_up_store

if __name__ == "__main__":
    folder, name = Path(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(1)
    search = _search(made_up_store(), trials=8, stages=1)
    while not (folder / "go").exists():
        (folder / f"{name}.ready").touch()
        time.sleep(0.01)
    study = search.open(_url(folder), "one")
    search.run(study, folder, lambda tried: print(tried.number, flush=True))
