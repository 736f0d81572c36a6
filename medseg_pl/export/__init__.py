"""Exported models: ONNX graph, specification, golden cases, runner and cards."""
