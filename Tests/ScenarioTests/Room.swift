// Runs every file of Tests/Scenarios against the real binary.
