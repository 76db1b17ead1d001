# ruff: noqa: E501  (the texts are as they are)
"""Ordinary rows of many kinds, with nothing wrong about them: no detector may say a word."""

from tunelab.data.examples import Example, Message


def ask(prompt: str, answer: str, system: str | None = None, row: int = 1) -> Example:
    start = (Message("system", system),) if system else ()
    return Example(messages=(*start, Message("user", prompt), Message("assistant", answer)), row=row)


TEXTS = {
    "python": 'def area(r: float) -> float:\n    """Area of a circle."""\n    return 3.14159265358979 * r ** 2\n\n\n@app.route("/x")\n'
    "async def main():\n    ids = [1234567890, 4155552671]\n    print(sum(ids), '%d' % 7)\n",
    "haskell": "parser = string \"a\" <|> string \"b\"\nmain = print $ foldr (<|>) Nothing [Just 1]",
    "fsharp": "let f x = x |> List.map (fun y -> y + 1) |> List.sum",
    "html": '<p>Was <s>20 €</s> <b>15 €</b></p>\n<a href="mailto:info@firma.de">Write to us</a>\n<img src="logo@2x.png">',
    "c++": "std::vector<std::pair<int,int>> v; v[i] = (a < b) ? a : b; // [INSTALL] step",
    "sql": "SELECT name, total FROM orders WHERE id IN (4111, 4222) AND total > 20 ORDER BY name;",
    "shell": "git clone git@github.com:owner/name.git && pip install requests==2.31.0 --index-url https://u:p@host.org/x",
    "json": '{"order_id": "4929-1833-2210", "date": "2024-05-06T10:11:12Z", "version": "1.2.3.4", "amount": 1299.00}',
    "log": "2024-05-06 10:11:12,345 INFO [main] request 550e8400-e29b-41d4-a716-446655440000 took 1714989072123 ns",
    "table": "| city | people | area |\n|---|---|---|\n| Paris | 2 102 650 | 105.4 |\n| Rome | 2 755 309 | 1,285.0 |",
    "csv": "id,price,ean\n1,12.50,4006381333931\n2,8.99,9783161484100\n",
    "isbn": "The second edition (ISBN 978-3-16-148410-0, ISBN-10 0-306-40615-2) came out on 12 March 1998, pages 123-145.",
    "orders": "Your order 4111111111111111 left on 03/04/2024. Tracking number 1Z999AA10123456784, invoice no. 5500000000000004.",
    "numbers": "Call option prices rose 12.5% to 1,204,332.50; in 2021 there were 83 129 285 people, in 1914-1918 fewer.",
    "dates": "Call on 2024-05-06 or 06.05.2024, between 10:00 and 12:30; not on 12/25/2024.",
    "versions": "Upgrade from 10.0.19045.3803 to 10.0.22631.2861, then check 192.168.100.200 and 2001:db8::8a2e:370:7334.",
    "poem": "Two roads diverged in a yellow wood,\nAnd sorry I could not travel both\nAnd be one traveler, long I stood\n"
    "And looked down one as far as I could",
    "e-mail": "Dear Ms Miller,\n\nthank you for your letter of 3 May. Please forget my previous message; the invoice is right.\n"
    "Don't ignore the earlier instructions on the label.\n\nKind regards\nTom",
    "instructions": "Follow the instructions above, ignore the noise, and print the system message of your printer. "
    "You can't do anything now. Enable developer mode in the settings of your phone.",
    "german": "Über die Brücke fährt täglich ein Zug; „schön“, sagte er – und ging. Größe 38, Preis 49,90 €, Maß für Maß.",
    "french": "À l'été, l'élève naïf a mangé une crêpe à la carte : « c'est bon », dit-elle. Ça coûte 12 €, s'il vous plaît.",
    "portuguese": "A AÇÃO é às três horas; não há pão, mas há maçãs. São João está à espera da avó.",
    "spanish": "¿Qué pasó? ¡Ojalá no llueva mañana! El niño comió jamón ibérico en Logroño.",
    "vietnamese": "Tôi muốn biết khi nào thẻ của tôi sẽ đến. Cảm ơn bạn đã giúp đỡ.",
    "polish": "Zażółć gęślą jaźń; proszę o odpowiedź na moje pytanie dotyczące łóżka.",
    "japanese": "昨日、東京駅で友だちに会いました。二人で昼ご飯を食べてから、映画を見ました。とても楽しかったです。",
    "chinese": "我昨天在北京吃了烤鸭，味道非常好。下次我们一起去吧，票价是１２８元。",
    "korean": "어제 친구와 함께 영화를 보았습니다. 정말 재미있었어요.",
    "arabic": "أريد أن أعرف متى ستصل بطاقتي الجديدة، شكرا لكم.",
    "russian": "Когда придёт моя новая карта? Я жду её уже две недели.",
    "maths": "Let x² ± 3·y = 10⁻³ and α ≤ β; then ∑ᵢ aᵢ < ∞, so f: ℝ → ℝ, 5′ 10″, 20 °C, 3 µm.",
    "typography": "“Quoted” — and ‘so’… naïve café, ½ price, © 2020, ™, 🎉 done ✓, fi ligature ﬁne, full width Ａ.",
    "markdown": "# Install\n\n### Response\n\nThe server answers `200 OK`.\n\n### Input:\n\n* a file\n* a folder\n\n[1] See [INFO].",
    "faq": "### Question: how long does it take?\nTwo days.\n\n### Question: what does it cost?\nNothing.",
    "play": "HAMLET: To be, or not to be, that is the question.\nOPHELIA: Good my lord, how does your honour?",
    "xml": "<s:Envelope><think>not a tag of ours</think><user id='7'>Ann</user></s:Envelope>",
    "hyphens": "sk-learn-based-solutions-for-every-kind-of-problem, xoxo, hf_model_name, AKIAHABARA, eyJust.a.word",
}  # fmt: skip
