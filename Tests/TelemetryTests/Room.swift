// Tests of the room Telemetry: one file per source file.
