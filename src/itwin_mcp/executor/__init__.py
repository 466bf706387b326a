"""Run one call: arguments in, an outcome out; each stage is a function in a module of its own."""
