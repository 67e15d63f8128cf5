"""How weights are trained further without being made fewer: `finetune`."""
