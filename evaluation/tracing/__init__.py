"""Knowledge tracing: do question vectors help to predict the next answer of students outside the training data?"""
