"""How much of the original is left?"""
