"""The stages of the pipeline: one verb, one file, one public function."""
