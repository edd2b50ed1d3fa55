"""The words that the tiny models of the tests know, for tests that cannot wait for torch."""

SENTENCE = (
    "query passage search document the a of for what is cat dog bird tree river stone red blue fast slow runs sleeps "
    "in on under over and or not all one two three : ; . ! ?"
)
