"""Numbers of a sweep's table that are shown as one."""

from purpleteam.report.swept import Group, Line


def test_a_mean_is_as_doubtful_as_its_worst_seed_and_is_of_all() -> None:
    def group(*values: tuple[float, str]) -> Group:
        made = Group("loss")
        for value, verdict in values:
            flag, sound = verdict if verdict == "weak" else "", verdict != "not_established"
            made.add(Line(value, value - 1, value + 1, 20, flag, sound, f"m-{value}"), whole=True)
        return made

    number = group((2.0, "sound"), (3.0, "weak"), (4.0, "not_established")).number
    assert (number.value, len(number.records), number.established) == (3.0, 3, False)
    assert "weak" in number.flag
    alike = group((2.0, "sound"), (2.0, "not_established")).number
    assert (alike.value, alike.established) == (2.0, False)
