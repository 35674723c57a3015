// Tests of the room KubernetesAPI: one file per source file.
