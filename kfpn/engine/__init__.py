"""Training: distribution, the step, checkpoints and the loop. The only place that knows tf.distribute."""
