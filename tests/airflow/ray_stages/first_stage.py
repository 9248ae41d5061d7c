"""The stage `first` of the tests' two-stage flow."""

from ray_stage import main

if __name__ == "__main__":
    main("first")
