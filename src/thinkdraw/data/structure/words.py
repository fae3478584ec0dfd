"""The words of prompt sets: nouns that can be drawn and counted, and attributes.

Also numbers, relations, and the grammar of articles and plurals.
"""

GROUPS: dict[str, tuple[str, ...]] = {
    group: tuple(word.strip() for word in words.split(","))
    for group, words in {
        "animals": """dog, cat, horse, cow, sheep, goat, pig, donkey, rabbit, squirrel, hedgehog, fox, wolf, bear, panda, koala,
            kangaroo, lion, tiger, leopard, elephant, giraffe, zebra, hippo, rhino, camel, llama, deer, moose, otter, beaver, badger,
            raccoon, hamster, mouse, monkey, gorilla, owl, eagle, parrot, penguin, flamingo, peacock, swan, duck, goose, rooster,
            turkey, pigeon, crow, ostrich, frog, turtle, lizard, snake, crocodile, shark, whale, dolphin, walrus, octopus, crab,
            lobster, jellyfish, starfish, goldfish, bee, butterfly, ladybug, spider, snail, ant""",
        "food": """apple, banana, orange, pear, peach, plum, lemon, lime, mango, pineapple, strawberry, cherry, watermelon, coconut,
            avocado, tomato, potato, carrot, onion, cucumber, pumpkin, eggplant, mushroom, cabbage, radish, bell pepper, bagel,
            croissant, pretzel, baguette, donut, cupcake, muffin, cookie, pancake, waffle, pie, cake, sandwich, hamburger, hot dog,
            taco, pizza, egg, lollipop, ice cream cone""",
        "furniture": """chair, table, desk, sofa, bed, bench, stool, bookshelf, wardrobe, dresser, cradle, armchair, rocking chair,
            nightstand, cabinet, footstool, hammock, coffee table, crib, coat rack""",
        "vehicles": """car, bus, truck, van, taxi, ambulance, fire engine, tractor, bulldozer, motorcycle, scooter, bicycle, tricycle,
            unicycle, locomotive, tram, helicopter, airplane, rocket, sailboat, canoe, kayak, ferry, submarine, sled, wagon,
            hot-air balloon, rickshaw""",
        "clothing": """hat, cap, scarf, coat, jacket, shirt, sweater, dress, skirt, necktie, belt, glove, mitten, sock, boot, sandal,
            sneaker, slipper, apron, kimono, backpack, handbag, suitcase, umbrella, helmet, crown, wristwatch, necklace, bracelet""",
        "tools": """hammer, screwdriver, wrench, saw, drill, axe, shovel, rake, broom, mop, bucket, ladder, paintbrush, toolbox,
            flashlight, wheelbarrow, lawn mower, watering can, chisel, padlock, key, anvil, paint roller, tape measure""",
        "instruments": """guitar, violin, cello, piano, drum, trumpet, trombone, tuba, flute, clarinet, saxophone, harp, banjo,
            ukulele, accordion, xylophone, tambourine, harmonica, bagpipe, gong""",
        "kitchen": """cup, mug, plate, bowl, fork, spoon, knife, teapot, kettle, frying pan, saucepan, goblet, bottle, jar, pitcher,
            cutting board, rolling pin, whisk, toaster, blender, stove, fridge, coffee maker, pepper mill, tray""",
        "household": """lamp, clock, mirror, vase, candle, pillow, blanket, rug, basket, picture frame, bathtub, hairbrush,
            ceiling fan, vacuum cleaner, washing machine, trash can, door, window, chandelier, doormat, alarm clock, hourglass,
            bird cage, ironing board, radiator""",
        "electronics": """laptop, tablet, phone, camera, television, radio, keyboard, printer, microphone, loudspeaker,
            game controller, telescope, microscope, calculator, typewriter, projector, robot, drone, record player, satellite dish""",
        "toys": """ball, football, basketball, tennis racket, surfboard, skateboard, kite, doll, teddy bear, yo-yo, balloon,
            bowling pin, trophy, dartboard, chessboard, trampoline, tent, rocking horse, jigsaw puzzle, boomerang, hula hoop""",
        "stationery": """book, notebook, pencil, fountain pen, ruler, eraser, stapler, envelope, globe, map, newspaper, magazine,
            calendar, briefcase, crayon, postcard, stamp, magnifying glass""",
        "plants": """tree, cactus, sunflower, rose, tulip, fern, palm tree, bush, pinecone, leaf, acorn, bonsai, dandelion""",
        "places": """house, castle, lighthouse, windmill, barn, bridge, tower, church, skyscraper, igloo, cabin, fountain, statue,
            street lamp, traffic light, road sign, hydrant, gate, mailbox, phone booth, tree house, pyramid, greenhouse""",
    }.items()
}
"""Nouns by group. Each names one thing: nothing that comes in pairs (scissors) or by weight (rice)."""

MADE = (
    "furniture",
    "vehicles",
    "clothing",
    "tools",
    "instruments",
    "kitchen",
    "household",
    "electronics",
    "toys",
    "stationery",
)
"""Groups whose things can be of any material."""
SHAPEABLE = ("food", "furniture", "kitchen", "household", "electronics", "stationery")
"""Groups whose things can have another outline and remain what they are."""

COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
"""GenEval's palette: the colours that its judge tells apart."""
MORE_COLORS = (*COLORS, "gray", "turquoise", "beige", "golden", "silver", "maroon")

MATERIALS = {
    "wooden": "made of wood", "metal": "made of metal", "glass": "made of glass", "leather": "made of leather",
    "plastic": "made of plastic", "rubber": "made of rubber", "stone": "made of stone", "ceramic": "made of ceramic",
    "paper": "made of paper", "cardboard": "made of cardboard", "velvet": "made of velvet", "denim": "made of denim",
    "wicker": "made of wicker", "marble": "made of marble", "bamboo": "made of bamboo", "concrete": "made of concrete",
}  # fmt: skip
"""Word before the noun → the same in a question."""
TEXTURES = ("striped", "dotted", "checkered", "fluffy", "shiny", "rusty", "knitted", "transparent", "rough", "smooth")
SHAPES = (
    "round", "square", "rectangular", "oval", "triangular", "spherical", "cubic", "cylindrical", "pentagonal", "hexagonal", "octagonal",
    "conical", "heart-shaped", "star-shaped", "diamond-shaped", "teardrop-shaped", "crescent-shaped", "oblong",
)  # fmt: skip

NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight"}

GENEVAL_RELATIONS = ("left of", "right of", "above", "below")
"""The relations that GenEval's rules judge."""
WORDINGS = {
    "left of": ("left of", "to the left of", "on the left of"),
    "right of": ("right of", "to the right of", "on the right of"),
    "above": ("above", "on top of"),
    "below": ("below", "under", "beneath"),
    "next to": ("next to", "beside"),
    "near": ("near", "close to"),
    "in front of": ("in front of",),
    "behind": ("behind",),
}
OPPOSITE = {"left of": "right of", "above": "below", "in front of": "behind", "next to": "next to", "near": "near"}
OPPOSITE |= {b: a for a, b in OPPOSITE.items()}

_VOWEL_SOUND = ("hour", "honest", "heir")
_CONSONANT_SOUND = ("uni", "uku", "use", "eu", "ewe", "one")
_IRREGULAR = {
    "mouse": "mice", "goose": "geese", "ox": "oxen", "sheep": "sheep", "deer": "deer", "moose": "moose", "wolf": "wolves",
    "knife": "knives", "leaf": "leaves", "shelf": "shelves", "bookshelf": "bookshelves", "scarf": "scarves", "cactus": "cacti",
    "potato": "potatoes", "tomato": "tomatoes", "mango": "mangoes", "man": "men", "woman": "women", "child": "children",
    "person": "people", "tooth": "teeth", "foot": "feet", "loaf": "loaves", "calf": "calves",
}  # fmt: skip


def article(phrase: str) -> str:
    """Put a or an before the phrase, by its first sound: an hourglass, a unicycle."""
    vowel = phrase.startswith(_VOWEL_SOUND) or (phrase[0] in "aeiou" and not phrase.startswith(_CONSONANT_SOUND))
    return ("an " if vowel else "a ") + phrase


def plural(noun: str) -> str:
    """Put the noun's last word in the plural: mice, coffee tables, goldfish."""
    head, blank, last = noun.rpartition(" ")
    if last in _IRREGULAR:
        last = _IRREGULAR[last]
    elif last.endswith(("s", "x", "z", "ch", "sh")) and not last.endswith("fish"):
        last += "es"
    elif last.endswith("y") and last[-2] not in "aeiou":
        last = last[:-1] + "ies"
    elif not last.endswith("fish"):
        last += "s"
    return head + blank + last
