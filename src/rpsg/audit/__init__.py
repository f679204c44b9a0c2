"""Attacks on released text: what can be learnt about the people behind it.

An attack that fails proves nothing about other attacks. No function here says "safe".
"""
