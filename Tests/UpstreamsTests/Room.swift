// Tests of the room Upstreams: one file per source file.
