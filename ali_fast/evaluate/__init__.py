"""Numbers from a trained run: what its features, samples and reconstructions are worth. Above `api`, below `cli`."""
