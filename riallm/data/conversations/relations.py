"""What can be told of somebody, and how it is said of just this: `frames` has the sentences that fit everything.

In a sentence `{own}` is "my" or a name with 's, `{who}` "I" and `{whom}` "me" or a name, `[a|b]` is a after "I" and b
after a name, `{v}` is the value, `{old}` the one before. Of each group of sentences the last one is kept for testing.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """thing: its name behind an owner, as in "my dog's name". kind: of its values. tells, changes, asks: sentences."""

    name: str
    thing: str
    kind: str
    tells: tuple[str, ...]
    changes: tuple[str, ...]
    asks: tuple[str, ...]


def _relation(name: str, thing: str, kind: str, *, tell: str, change: str, ask: str) -> Relation:
    tells, changes, asks = (tuple(text.split(" / ")) for text in (tell, change, ask))
    return Relation(name=name, thing=thing, kind=kind, tells=tells, changes=changes, asks=asks)


def _pet(name: str) -> Relation:
    return _relation(
        name,
        f"{name}'s name",
        "pet",
        tell=f"{{own}} {name} is called {{v}}. / {{who}} [have|has] a {name}, it is called {{v}}. / "
        f"{{who}} named the {name} {{v}}. / {{who}} [have|has] a {name} named {{v}}.",
        change=f"We renamed {{own}} {name}, it is {{v}} now. / {{who}} renamed the {name}, its name is now {{v}}. / "
        f"{{own}} {name} is now called {{v}}.",
        ask=f"What is {{own}} {name} called? / How did {{who}} name the {name}? / What name did {{who}} give the "
        f"{name}? / What did {{who}} name the {name}?",
    )


def _person(name: str) -> Relation:
    return _relation(
        name,
        f"{name}'s name",
        "person",
        tell=f"{{own}} {name} is called {{v}}. / The name of {{own}} {name} is {{v}}. / {{who}} [have|has] a {name} "
        f"named {{v}}.",
        change=f"{{who}} [have|has] a new {name}, {{v}}. / {{own}} new {name} is called {{v}}.",
        ask=f"Who is {{own}} {name}? / Tell me who {{own}} {name} is. / Do you know who {{own}} {name} is?",
    )


RELATIONS: tuple[Relation, ...] = (
    *map(_pet, ("dog", "cat", "parrot", "horse")),
    *map(_person, ("boss", "neighbour", "doctor", "teacher", "dentist")),
    _relation(
        "town",
        "home town",
        "place",
        tell="{who} [live|lives] in {v}. / {own} home is in {v}. / {who} [am|is] at home in {v}.",
        change="{who} moved to {v}. / {who} [live|lives] in {v} now. / {own} home is in {v} now.",
        ask="Where [do|does] {who} live? / Tell me where {who} [live|lives]. / In what town [do|does] {who} live? / "
        "Where is {own} home?",
    ),
    _relation(
        "birthplace",
        "birthplace",
        "place",
        tell="{who} was born in {v}. / {who} [come|comes] from {v}. / {own} birthplace: that is {v}.",
        change="{who} was not born in {old} but in {v}. / {who} [do|does] not come from {old} but from {v}.",
        ask="Where was {who} born? / In what town was {who} born? / Where [do|does] {who} come from?",
    ),
    _relation(
        "holiday",
        "holiday place",
        "place",
        tell="{who} [spend|spends] the holidays in {v}. / {who} [go|goes] to {v} for the holidays. / "
        "For the holidays {who} [go|goes] to {v}.",
        change="This time {who} [spend|spends] the holidays in {v}. / {who} now [go|goes] to {v} for the holidays.",
        ask="Where [do|does] {who} spend the holidays? / Where [do|does] {who} go for the holidays? / "
        "For the holidays, where [do|does] {who} go?",
    ),
    _relation(
        "street",
        "street",
        "street",
        tell="{who} [live|lives] on {v}. / {own} house is on {v}. / {own} home is on {v}.",
        change="{who} moved to a house on {v}. / {own} house is on {v} now.",
        ask="On what street [do|does] {who} live? / Where is {own} house? / On what street is {own} house?",
    ),
    _relation(
        "office",
        "office street",
        "street",
        tell="{own} office is on {v}. / You find {own} office on {v}. / {who} [have|has] an office on {v}.",
        change="{own} office moved to {v}. / {own} office is on {v} now.",
        ask="On what street is {own} office? / Where is {own} office? / Where do you find {own} office?",
    ),
    _relation(
        "colour",
        "favourite colour",
        "colour",
        tell="The colour {who} [like|likes] most is {v}. / {who} [love|loves] the colour {v}. / "
        "Of all colours {who} [like|likes] {v} most.",
        change="Now {who} [like|likes] {v} most of all colours. / The colour {who} [like|likes] most is now {v}.",
        ask="What colour [do|does] {who} like most? / Of all colours, what [do|does] {who} like most? / "
        "What colour [do|does] {who} love?",
    ),
    _relation(
        "car",
        "car colour",
        "colour",
        tell="{who} [drive|drives] a car in {v}. / {own} car is painted {v}. / The colour of {own} car is {v}.",
        change="{own} car was painted {v}. / {own} car is now painted {v}.",
        ask="What colour is {own} car? / What is the colour of {own} car? / "
        "What colour is the car {who} [drive|drives]?",
    ),
    _relation(
        "door",
        "door colour",
        "colour",
        tell="{own} front door is painted {v}. / The colour of {own} front door is {v}. / {own} door is painted {v}.",
        change="{own} front door was painted {v}. / {own} front door is now painted {v}.",
        ask="What colour is {own} front door? / What is the colour of {own} front door? / What colour is {own} door?",
    ),
    _relation(
        "dish",
        "favourite dish",
        "dish",
        tell="The dish {who} [like|likes] most is {v}. / {who} [love|loves] to eat {v}. / "
        "{who} [like|likes] to eat {v} most.",
        change="Now {who} [like|likes] to eat {v} most. / The dish {who} [like|likes] most is now {v}.",
        ask="What dish [do|does] {who} like most? / What [do|does] {who} love to eat? / "
        "What [do|does] {who} like to eat most?",
    ),
    _relation(
        "breakfast",
        "breakfast",
        "dish",
        tell="{who} [have|has] {v} for breakfast. / In the morning {who} [eat|eats] {v}. / For breakfast {who} "
        "[eat|eats] {v}.",
        change="{who} now [have|has] {v} for breakfast. / For breakfast {who} now [eat|eats] {v}.",
        ask="What [do|does] {who} have for breakfast? / What [do|does] {who} eat in the morning? / "
        "For breakfast, what [do|does] {who} eat?",
    ),
    _relation(
        "job",
        "job",
        "job",
        tell="{who} [work|works] as a {v}. / {who} [am|is] a {v}. / {who} [have|has] a job as a {v}.",
        change="{who} [have|has] a new job as a {v}. / {who} now [work|works] as a {v}.",
        ask="What is {own} work? / As what [do|does] {who} work? / What work [do|does] {who} do?",
    ),
    _relation(
        "dream",
        "dream job",
        "job",
        tell="{who} [want|wants] to be a {v}. / {who} [dream|dreams] of being a {v}. / {own} dream is to be a {v}.",
        change="Now {who} [want|wants] to be a {v}. / {own} dream is now to be a {v}.",
        ask="What [do|does] {who} want to be? / What job [do|does] {who} dream of? / What job [do|does] {who} want?",
    ),
    _relation(
        "hint",
        "password hint",
        "thing",
        tell="The hint for {own} password is {v}. / {own} password has the hint {v}. / For {own} password the hint "
        "is {v}.",
        change="The hint for {own} password is now {v}. / {own} password now has the hint {v}.",
        ask="What is the hint for {own} password? / What hint has {own} password? / For {own} password, what is the "
        "hint?",
    ),
    _relation(
        "present",
        "present",
        "thing",
        tell="{who} got a {v} as a present. / They gave {whom} a {v}. / As a present {who} got a {v}.",
        change="{who} gave back the {old} and got a {v} as a present. / For the {old} {who} got a {v} as a present.",
        ask="What did {who} get as a present? / What present did {who} get? / As a present, what did {who} get?",
    ),
    _relation(
        "charm",
        "lucky charm",
        "thing",
        tell="{who} always [carry|carries] a {v} for luck. / A {v} brings {whom} luck. / For luck {who} always "
        "[carry|carries] a {v}.",
        change="For luck {who} now [carry|carries] a {v}. / {who} now always [carry|carries] a {v} for luck.",
        ask="What [do|does] {who} always carry? / What brings {whom} luck? / What [do|does] {who} carry for luck?",
    ),
    _relation(
        "birthday",
        "birthday",
        "date",
        tell="{who} was born on {v}. / {who} [have|has] a birthday on {v}. / {own} birthday is on {v}.",
        change="{who} was not born on {old} but on {v}. / {own} birthday is not on {old} but on {v}.",
        ask="When is {own} birthday? / When was {who} born? / On what day is {own} birthday?",
    ),
    _relation(
        "exam",
        "exam date",
        "date",
        tell="{who} [have|has] an exam on {v}. / {own} exam is on {v}. / On {v} {who} [have|has] an exam.",
        change="{own} exam moved to {v}. / {own} exam is on {v} now.",
        ask="When is {own} exam? / On what day is {own} exam? / When [do|does] {who} have an exam?",
    ),
    _relation(
        "trip",
        "trip date",
        "date",
        tell="{own} trip begins on {v}. / {who} [go|goes] on a trip on {v}. / On {v} {own} trip begins.",
        change="{own} trip moved to {v}. / {own} trip begins on {v} now.",
        ask="When is {own} trip? / On what day [do|does] {who} go on a trip? / When [do|does] {who} go on a trip?",
    ),
    _relation(
        "locker",
        "locker code",
        "code",
        tell="{own} locker opens with {v}. / The code of {own} locker is {v}. / The code {v} opens {own} locker.",
        change="{own} locker has a new code, {v}. / The new code of {own} locker is {v}.",
        ask="What code opens {own} locker? / What is the code of {own} locker? / What code has {own} locker?",
    ),
    _relation(
        "room",
        "room number",
        "code",
        tell="{who} [am|is] in room {v}. / {own} meeting is in room {v}. / You find {whom} in room {v}.",
        change="{who} moved to room {v}. / {own} meeting moved to room {v}.",
        ask="In what room [am|is] {who}? / In what room is {own} meeting? / In what room do you find {whom}?",
    ),
    _relation(
        "gate",
        "gate code",
        "code",
        tell="{own} gate opens with {v}. / The code of {own} gate is {v}. / The code {v} opens {own} gate.",
        change="{own} gate has a new code, {v}. / The new code of {own} gate is {v}.",
        ask="What code opens {own} gate? / What is the code of {own} gate? / What code has {own} gate?",
    ),
    _relation(
        "ticket",
        "ticket number",
        "code",
        tell="{own} ticket has the number {v}. / The number of {own} ticket is {v}. / "
        "On {own} ticket the number is {v}.",
        change="{own} ticket has a new number, {v}. / The new number of {own} ticket is {v}.",
        ask="What number has {own} ticket? / What is the number of {own} ticket? / What number is on {own} ticket?",
    ),
)
"""In this order; a configuration may take the first ones alone."""
