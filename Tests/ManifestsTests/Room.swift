// Tests of the room Manifests: one file per source file.
