"""Frames in, class maps out: the session, streams, video and drawing.

Public by `fastseg_runtime.RealtimeSegmentation`; imports arrays, bundle and engines.
"""
