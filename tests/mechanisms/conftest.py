import pytest

pytest.register_assert_rewrite("contract", "golden_data")
