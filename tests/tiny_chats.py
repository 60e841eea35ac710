"""A file of short conversations."""

import json
import random
from pathlib import Path


def write_chats(folder: Path, count: int = 40) -> None:
    draw = random.Random(0)
    with open(folder / "chat.jsonl", "w") as file:
        for _ in range(count):
            prompt, response = ("".join(draw.choices("abcdef", k=draw.randint(1, 9))) for _ in range(2))
            messages = [("user", prompt), ("assistant", response), ("user", response), ("assistant", prompt)]
            listed = [{"role": role, "content": content} for role, content in messages]
            record = {"prompt": prompt, "response": response} if draw.random() < 0.5 else {"messages": listed}
            file.write(json.dumps(record) + "\n")
