"""Models whose pictures are words of their one vocabulary: Emu3, Liquid.

A direction's distribution is the softmax over the rows of the head that it may draw from: a
picture's over the rows of VQ tokens, a text's over those before them. Both are slices of one
weight, in sampling, in likelihoods and in training alike. What is known beforehand (the end of a
picture's row, of the picture) is read and never drawn, and is no part of a likelihood.
"""
