"""A policy that `fastsim export RUN` wrote, with torch alone: decide_with_torch.py POLICY.pt."""

import json
import sys

import torch

extra = {"fastsim.json": ""}
policy = torch.jit.load(sys.argv[1], _extra_files=extra)
note = json.loads(extra["fastsim.json"])
seen = torch.zeros(1, len(note["observation"]))  # the columns that `observation` names, in order
weights = policy(seen)[0].tolist()
print(dict(zip(note["spec"]["symbols"], weights, strict=True)))
