# MuJoCo's bindings are compiled and ship no types; without this every attribute reads as an error.
from typing import Any

def __getattr__(name: str) -> Any: ...
