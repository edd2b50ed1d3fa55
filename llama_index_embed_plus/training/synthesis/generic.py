"""Words of headings that say nothing of what stands below them, and beginnings of sentences that point to another one.

In the languages that documents are most often written in; what these lists have not is found by how often a heading
occurs (`overview`).
"""

from __future__ import annotations

import re


def _entries(text: str, between: str = r"\s*[|\n]\s*") -> frozenset[str]:
    return frozenset(re.split(between, text.strip()))


GENERIC = _entries(
    """
    introduction|intro|overview|summary|abstract|conclusion|conclusions|discussion|results|background|contents|method
    table of contents|references|bibliography|appendix|notes|note|further reading|see also|related|related work|example
    examples|usage|description|details|general|misc|miscellaneous|other|others|getting started|installation|install
    quick start|quickstart|requirements|prerequisites|configuration|options|parameters|arguments|returns|features|faq
    changelog|change log|license|licence|acknowledgements|acknowledgments|contributing|todo|about|index|home|readme
    preface|foreword|glossary|methods|materials and methods|purpose|scope|objective|objectives|key points|untitled
    part one|part two|chapter|section|page|documentation|questions|answers|more information|learn more|links|sources
    frequently asked questions|release notes|new features|bug fixes|how it works|next steps|contact|imprint|download
    einleitung|einführung|überblick|übersicht|zusammenfassung|fazit|schluss|inhalt|inhaltsverzeichnis|literatur|anhang
    quellen|einzelnachweise|weblinks|siehe auch|hinweise|hinweis|beispiel|beispiele|allgemeines|allgemein|sonstiges
    voraussetzungen|konfiguration|einstellungen|beschreibung|ergebnisse|diskussion|hintergrund|vorwort|impressum
    kontakt|häufige fragen|fragen und antworten|verwendung|anforderungen|lizenz|glossar|geschichte
    introducción|resumen|conclusión|conclusiones|referencias|bibliografía|índice|contenido|ejemplo|ejemplos|requisitos
    instalación|configuración|descripción|anexo|véase también|notas|preguntas frecuentes|generalidades|uso|historia
    avant-propos|sommaire|résumé|conclusion générale|références|bibliographie|annexe|annexes|exemple|exemples|remarques
    voir aussi|prérequis|présentation|généralités|foire aux questions|table des matières|liens externes|histoire
    introduzione|riassunto|sommario|conclusioni|conclusione|riferimenti|indice|esempio|esempi|note|requisiti|appendice
    descrizione|installazione|configurazione|panoramica|domande frequenti|introdução|resumo|conclusão|conclusões
    referências|sumário|exemplo|exemplos|instalação|configuração|visão geral|perguntas frequentes|apêndice|ver também
    inleiding|samenvatting|conclusie|inhoud|voorbeeld|voorbeelden|bijlage|overzicht|inledning|sammanfattning|wstęp
    podsumowanie|spis treści|przykład|przykłady|bibliografia|giriş|özet|sonuç|kaynakça|örnek|örnekler|içindekiler
    введение|заключение|выводы|содержание|оглавление|пример|примеры|литература|список литературы|приложение|обзор
    примечания|описание|установка|настройка|см. также|общие сведения|ссылки
    介绍|简介|引言|概述|概要|摘要|总结|结论|目录|参考文献|附录|示例|例子|安装|配置|说明|背景|常见问题|前言|相关链接
    介紹|簡介|總結|結論|目錄|參考文獻|附錄|範例|安裝|說明|常見問題
    はじめに|概要|序論|まとめ|結論|目次|参考文献|付録|例|使い方|インストール|設定|説明|背景|よくある質問|おわりに
    소개|개요|요약|서론|결론|목차|참고 문헌|참고문헌|부록|예제|예시|설치|설정|설명|자주 묻는 질문
    مقدمة|ملخص|خاتمة|الخلاصة|المراجع|المحتويات|أمثلة|مثال|نظرة عامة|الأسئلة الشائعة|परिचय|सारांश|निष्कर्ष|उदाहरण|संदर्भ
    """
)

POINTING = _entries(
    """
    this these that those it its they them their he she his her we our i you such here there then thus therefore hence
    however but and or so also moreover furthermore additionally otherwise similarly finally instead note both neither
    either as if when although though while because since after before once another other others first second
    third next last see yes no conversely alternatively specifically should must may useful args arguments
    dies diese dieser dieses diesen das der er sie es ihre sein jedoch daher deshalb aber und oder auch außerdem hier
    dort dann ferner somit dabei damit dadurch wenn obwohl während nachdem siehe
    ce cet cette ces il elle ils elles cela ceci cependant donc mais et ou aussi ici alors ainsi si quand voir
    este esta estos estas esto eso ese esa él ella ellos sin pero y o también aquí allí entonces así si cuando
    questo questa questi queste esso essa però ma e anche qui quindi così se quando
    isto isso esse essa ele ela mas e ou também aqui então assim
    dit deze die het maar en ook hier dus
    это этот эта эти он она они однако поэтому но и или также здесь тогда если
    """,
    r"\s+",
)

NO_ANCHOR = _entries(
    """
    here|click here|this|this page|this link|link|more|read more|see more|learn more|details|source|see here
    this section|this document|the documentation|documentation|docs|below|above|next|previous|back|top|home|edit
    website|page|hier|hier klicken|mehr|weiterlesen|siehe hier|zurück|weiter|ici|cliquez ici|en savoir plus
    lire la suite|suivant|aquí|haga clic aquí|leer más|más información|qui|clicca qui|leggi tutto|aqui|saiba mais
    здесь|тут|подробнее|далее|这里|点击这里|更多|こちら|詳細|여기
    """
)

PRONOUNS = _entries(
    "it|this|that|these|those|they|he|she|es|das|dies|diese|er|sie|il|elle|cela|esto|eso|questo|это|он|она"
)
"""In a short question they stand for what the question does not say."""

LABELS = _entries(
    """
    abstract|summary|background|introduction|objective|objectives|aim|aims|purpose|context|importance|rationale|methods
    results|conclusion|conclusions|key points|background and purpose|background and aims|background and study aims
    zusammenfassung|hintergrund|ziel|einleitung|ergebnisse|résumé|introduction|objectif|resumen|introducción|objetivo
    """
)
"""What abstracts have before their first sentence, on the same line."""
