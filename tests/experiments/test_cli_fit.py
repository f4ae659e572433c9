@pytest.mark.parametrize("epsilon", ["1e400", "9" * 400])
def test_an_epsilon_too_large_for_a_float_is_not_taken_for_no_noise(dpfc, tmp_path, epsilon):
    done = dpfc("fit", "--features", tmp_path, f"--epsilon={epsilon}", "--out", tmp_path / "m")
    assert done.code == 2 and "is too large; for no noise at all, say 'inf'" in done.err
