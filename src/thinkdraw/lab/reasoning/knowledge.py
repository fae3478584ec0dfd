"""What everybody knows of colours and shapes, as riddles use it."""

COLOR_OF = {
    "blood": "red", "a tomato": "red", "a strawberry": "red",
    "a carrot": "orange", "a pumpkin": "orange",
    "a lemon": "yellow", "a banana": "yellow", "the sun": "yellow",
    "grass": "green", "a frog": "green", "a cucumber": "green",
    "the sea": "blue", "jeans": "blue",
    "a plum": "purple", "lavender": "purple",
    "a flamingo": "pink", "a pig": "pink",
    "mud": "brown", "chocolate": "brown", "a bear": "brown",
}  # fmt: skip
ARE = ("jeans",)  # plural: "jeans are blue"
RAINBOW = ("red", "orange", "yellow", "green", "blue", "purple")

SHAPE_OF = {
    "the shape of a coin": "circle",
    "the shape of a chess board": "square",
    "the shape with three corners": "triangle",
    "the shape of a kite": "diamond",
    "the sign for plus": "cross",
    "the shape with five points": "star",
    "the sign of love": "heart",
    "what one wears on a finger": "ring",
    "what travels around the earth": "moon",
    "what a bow shoots": "arrow",
    "what a family lives in": "house",
    "what leaves grow on": "tree",
    "what swims in the sea": "fish",
    "what tea is drunk from": "cup",
    "what a painting hangs in": "frame",
    "what measures time with sand": "hourglass",
}
