"""Writes the onnx package's node tests: OUT/node/test_NAME/{model.onnx, test_data_set_K}.

    python node_tests.py OUT

The same as `python -m onnx.backend.test.cmd_tools generate-data -o OUT`; from onnx 1.22 on that
command leaves the node cases out, so they are handed to it here.
"""
import argparse
import sys

import onnx.backend.test.case.node as node_cases
import onnx.backend.test.cmd_tools as tools

tools.model_test.collect_testcases = lambda: node_cases.collect_testcases(None)
tools.generate_data(argparse.Namespace(output=sys.argv[1], clean=False, op_type=None, diff=False))
