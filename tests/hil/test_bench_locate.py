"""``axond bench locate`` keeps what is asked of localisation, and says how far that goes."""

import pytest

from hil.bench import locate

pytest.importorskip("scipy")


@pytest.mark.parametrize("name", ["square4_1m_2d", "ring24_1m_3d"])
def test_nine_of_ten_within_5_cm_in_5_ms(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locate, "ARRAYS", {name: locate.ARRAYS[name]})
    numbers = locate.measure(0.1)
    for kind in ("still", "moving"):
        part = {key.rsplit(".", 1)[1]: value for key, value in numbers.items() if key.startswith(f"{name}.{kind}.")}
        assert part["rows"] == locate.LEAST_SCENES * locate.ROWS
        assert part["within_5cm"] > 0.9
        assert part["least_squares_within_5cm"] < part["row_alone_within_5cm"] <= 1
        assert 0 < part["update_p50_ms"] <= part["update_p95_ms"] <= part["update_p99_ms"]
        assert part["update_cpu_p95_ms"] < 5
