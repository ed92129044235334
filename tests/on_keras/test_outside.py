"""A mechanism from outside the package passes the tests that Keras layers of the built-in ones pass."""

from pathlib import Path

from outside.files import passed_tests, write

FILES = ["test_backend.py", "test_golden.py", "test_published.py", "test_transfer_weights.py"]
WANTED = {
    "test_keras_gives_the_weights_their_names_and_shapes",
    "test_keras_computes_what_the_authors_compute",
    "test_running_statistics_move_as_keras_moves_them",
    "test_a_state_dict_of_torch_loads",
    "test_torch_and_keras_agree",
}


def test_a_registered_one_passes_the_tests_of_the_built_in_ones(tmp_path: Path) -> None:
    files = [f"tests/on_keras/{name}" for name in FILES]
    assert passed_tests("--mechanism", write(tmp_path, tmp_path), *files) >= WANTED
