"""The weights of a module: the files behind them, and their way to the device that computes."""
