"""The JSON Schema of `run.json`, made from the records: `voxpress device schema > device_tests/run.schema.json`."""

from __future__ import annotations

import json
from pathlib import Path

from device_tests.records import RunRecord

SCHEMA_FILE = Path(__file__).with_name("run.schema.json")


def schema_text() -> str:
    """The schema (draft 2020-12) as text."""
    schema = RunRecord.model_json_schema(mode="validation")
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "VoxPress device run, version 2"}
    return json.dumps({**schema, **head}, indent=1, sort_keys=True) + "\n"
