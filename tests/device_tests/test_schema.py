from device_tests.schema import SCHEMA_FILE, schema_text


def test_the_published_schema_is_that_of_the_records() -> None:
    assert SCHEMA_FILE.read_text() == schema_text(), "run `voxpress device schema > device_tests/run.schema.json`"
