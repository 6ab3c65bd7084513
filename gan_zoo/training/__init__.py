"""The alternating loop of any game: players, phases, one iteration."""
