"""Writes ONNX files: for ONNX Runtime, OpenVINO and TensorRT, in float32 and in eight bits."""
