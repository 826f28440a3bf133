"""A small world of drawn images with known truth, and the lessons that teach a small model to see it.

The demo's rewriter and judge is trained here: it explains answers by what a drawing shows, and says Yes or No to
explanations of which some have a planted fault. Every lesson is made from the drawing's own truth.
"""
